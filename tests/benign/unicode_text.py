# Text of many scripts through files, names and normal forms.
# stdout: 'Ünïcödé 日本語 👩\u200d👩\u200d👧 नमस्ते שלום 1\n'
# files: größe.txt
import unicodedata

text = "Ünïcödé 日本語 👩‍👩‍👧 नमस्ते שלום"
with open("größe.txt", "w", encoding="utf8") as file:
    file.write(text)
with open("größe.txt", encoding="utf8") as file:
    print(file.read(), int(unicodedata.normalize("NFC", "e\u0301") == "é"))

# Compares the outputs of two programs.
# stdout: '1c1\n< a\n---\n> b\n1\n'
diff <(echo a) <(echo b)
echo $?

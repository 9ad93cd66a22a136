# Here documents, here strings, functions, arrays, arithmetic, substitution.
# stdout: 'hello Anna\n6\nb\nABC\n'
greet() { cat <<EOF
hello $1
EOF
}
greet Anna
echo $((2 * 3))
words=(a b c)
echo "${words[1]}"
tr a-z A-Z <<< abc

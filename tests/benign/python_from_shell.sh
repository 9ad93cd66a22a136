# Python as a filter in a pipeline.
# stdin: '{"a": [1, 2, 3]}'
# stdout: '6\n1.5\n'
python3 -c 'import json, sys; print(sum(json.load(sys.stdin)["a"]))'
python3 - <<'CODE'
print(3 / 2)
CODE

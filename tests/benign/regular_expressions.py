# Finds, groups and replaces in a log.
# stdout: "{'GET': 2, 'POST': 1}\n2026-01-02\n"
import re
from collections import Counter

log = """127.0.0.1 - [02/Jan/2026] "GET /a" 200
::1 - [02/Jan/2026] "POST /b" 500
10.0.0.1 - [02/Jan/2026] "GET /ü" 404"""
print(dict(Counter(match["verb"] for match in re.finditer(r'"(?P<verb>[A-Z]+) ', log))))
print(re.sub(r"(\d+)/Jan/(\d+)", r"\2-01-\1", re.search(r"\[(.*?)\]", log)[1]))

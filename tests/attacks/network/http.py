# Fetches from a server on the host, as any program would, also by way of a proxy variable.
# severity: critical
# escape: heard
import os
import urllib.request

from raw import A, refusable, tried

for proxy in ("", f"http://127.0.0.1:{A.tcp}"):
    os.environ["http_proxy"] = proxy
    with refusable("http"):
        urllib.request.urlopen(f"http://localhost:{A.tcp}/" if not proxy else "http://example.org/", timeout=1).read()
tried()

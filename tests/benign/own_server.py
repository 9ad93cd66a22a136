# A web server of its own on the loopback, asked by a client of its own.
# stdout: '200 hello\n'
# price: confined: no loopback
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *words):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with urllib.request.urlopen(f"http://localhost:{server.server_port}/") as answer:
    print(answer.status, answer.read().decode())
server.shutdown()
server.server_close()

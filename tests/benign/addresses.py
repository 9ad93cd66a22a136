# Takes addresses, mail, HTML, XML and configuration apart, without a network.
# stdout: "example.org {'q': ['a b']} 2 ['one', 'two'] 10.0.0.0/8\n"
import configparser
import html.parser
import ipaddress
import urllib.parse
import xml.etree.ElementTree as tree

place = urllib.parse.urlsplit("https://example.org/x?q=a%20b")
words = []


class Text(html.parser.HTMLParser):
    def handle_data(self, data):
        words.append(data)


Text().feed("<p>one</p><b>two</b>")
config = configparser.ConfigParser()
config.read_string("[a]\nb = 2\n")
assert tree.fromstring("<a><b/></a>").find("b") is not None
print(place.hostname, urllib.parse.parse_qs(place.query), config["a"]["b"], words, ipaddress.ip_network("10.0.0.0/8"))

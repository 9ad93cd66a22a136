"""Sequences of calls that a reference and the kernel both get: scripted ones, and random ones from a seed.

Within one call nothing is named twice: there the kernel differs from server-memory on purpose (mcp_server/memory_graph.py).
"""

import random

ANNA = {"name": "Anna Schmidt", "entityType": "person", "observations": ["likes tea", "lives in Graz"]}
ACME = {"name": "Acme", "entityType": "company", "observations": []}
WORKS = {"from": "Anna Schmidt", "to": "Acme", "relationType": "works_at"}

GRAPH_SCRIPT = [
    ("read_graph", {}),
    ("create_entities", {"entities": [ANNA, ACME]}),
    ("create_entities", {"entities": [{**ANNA, "observations": ["something else"]}, {"name": "", "entityType": "", "observations": [""]}]}),
    ("create_entities", {"entities": []}),
    ("create_relations", {"relations": [WORKS, {"from": "Anna Schmidt", "to": "nobody", "relationType": "knows"}]}),
    ("create_relations", {"relations": [WORKS, {"from": "Acme", "to": "Acme", "relationType": "owns"}]}),
    ("create_relations", {"relations": [{"from": "", "to": "", "relationType": ""}]}),
    ("add_observations", {"observations": [{"entityName": "Anna Schmidt", "contents": ["likes tea", "speaks Dänisch \u2028 🐧"]}]}),
    ("add_observations", {"observations": [{"entityName": "Acme", "contents": ["a"]}, {"entityName": "Nobody", "contents": ["b"]}]}),
    ("open_nodes", {"names": ["Acme"]}),
    ("search_nodes", {"query": "LIKES TEA"}),
    ("search_nodes", {"query": "dänisch"}),
    ("search_nodes", {"query": "comp"}),
    ("search_nodes", {"query": "%"}),
    ("search_nodes", {"query": ""}),
    ("open_nodes", {"names": ["Anna Schmidt", "Nobody"]}),
    ("open_nodes", {"names": []}),
    ("delete_observations", {"deletions": [{"entityName": "Anna Schmidt", "observations": ["likes tea", "never said"]}]}),
    ("delete_observations", {"deletions": [{"entityName": "Nobody", "observations": ["x"]}]}),
    ("add_observations", {"observations": [{"entityName": "Anna Schmidt", "contents": ["likes tea"]}]}),
    ("delete_relations", {"relations": [WORKS, {"from": "x", "to": "y", "relationType": "z"}]}),
    ("read_graph", {}),
    ("create_relations", {"relations": [WORKS]}),
    ("delete_entities", {"entityNames": ["Anna Schmidt", "Nobody"]}),
    ("read_graph", {}),
    ("create_entities", {"entities": [{**ANNA, "id": 7}]}),
    ("read_graph", {"surplus": True}),
]  # fmt: skip


def random_graph_calls(seed, count):
    rng = random.Random(seed)
    names = [f"node {i}" for i in range(8)] + ["Ä", "a/b", "entity/x"]
    texts = [
        f"saw {w} {i}" for i, w in enumerate(("red", "Blue", "GREEN", "größe", "50%", "under_score", "a\nb", '"q"'))
    ]

    def some(values, least=0):
        return rng.sample(values, rng.randint(least, 3))

    def edges():
        found = {
            (rng.choice(names), rng.choice(names), rng.choice(("knows", "owns"))) for _ in range(rng.randint(1, 3))
        }
        return [{"from": a, "to": b, "relationType": c} for a, b, c in sorted(found)]

    for _ in range(count):
        kind = rng.randrange(9)
        if kind == 0:
            made = [
                {"name": n, "entityType": rng.choice(("thing", "Person")), "observations": some(texts)}
                for n in some(names, 1)
            ]
            yield "create_entities", {"entities": made}
        elif kind == 1:
            yield "create_relations", {"relations": edges()}
        elif kind == 2:
            yield (
                "add_observations",
                {"observations": [{"entityName": n, "contents": some(texts)} for n in some(names, 1)]},
            )
        elif kind == 3 and rng.random() < 0.4:
            yield "delete_entities", {"entityNames": some(names)}
        elif kind == 4:
            gone = [{"entityName": n, "observations": some(texts)} for n in some(names, 1)]
            yield "delete_observations", {"deletions": gone}
        elif kind == 5:
            yield "delete_relations", {"relations": edges()}
        elif kind == 6:
            yield (
                "search_nodes",
                {"query": rng.choice(("SAW red", "NODE", "b", "PERSON", "größe", "%", "_", "a\n", '"'))},
            )
        elif kind == 7:
            yield "open_nodes", {"names": some(names)}
        else:
            yield "read_graph", {}


FILE_SCRIPT = [
    {"command": "view", "path": "/memories"},
    {"command": "create", "path": "/memories/notes.txt", "file_text": "Meeting notes:\n- Discussed project timeline\n- Next steps defined\n"},
    {"command": "create", "path": "/memories/notes.txt", "file_text": "again"},
    {"command": "create", "path": "/memories/deep/er/still/x.md", "file_text": "deep"},
    {"command": "create", "path": "/memories/deep/b.md", "file_text": "b"},
    {"command": "create", "path": "/memories/deep", "file_text": "a directory is there"},
    {"command": "create", "path": "/memories", "file_text": "root"},
    {"command": "create", "path": "/memories/.hidden", "file_text": "h"},
    {"command": "create", "path": "/memories/empty", "file_text": ""},
    {"command": "create", "path": "/memories/blank", "file_text": " \n\n"},
    {"command": "create", "path": "/memories/no-end", "file_text": "one\ntwo"},
    {"command": "create", "path": "/memories/crlf", "file_text": "one\r\ntwo\r\n"},
    {"command": "view", "path": "/memories/notes.txt"},
    {"command": "view", "path": "/memories/notes.txt", "view_range": [2, 3]},
    {"command": "view", "path": "/memories/notes.txt", "view_range": [2, -1]},
    {"command": "view", "path": "/memories/notes.txt", "view_range": [0, 1]},
    {"command": "view", "path": "/memories/notes.txt", "view_range": [9, 12]},
    {"command": "view", "path": "/memories/notes.txt", "view_range": [3]},
    {"command": "view", "path": "/memories/empty"},
    {"command": "view", "path": "/memories/blank"},
    {"command": "view", "path": "/memories/nothing"},
    {"command": "view", "path": "/memories/../etc/passwd"},
    {"command": "view", "path": "/memories/a/../../etc"},
    {"command": "view", "path": "/etc/passwd"},
    {"command": "view", "path": "memories/notes.txt"},
    {"command": "str_replace", "path": "/memories/notes.txt", "old_str": "timeline", "new_str": "budget"},
    {"command": "str_replace", "path": "/memories/notes.txt", "old_str": "timeline", "new_str": "x"},
    {"command": "str_replace", "path": "/memories/notes.txt", "old_str": "e", "new_str": "x"},
    {"command": "str_replace", "path": "/memories/notes.txt", "old_str": "- Next steps defined\n", "new_str": "- a\n- b\n- c\n"},
    {"command": "str_replace", "path": "/memories/nothing", "old_str": "a", "new_str": "b"},
    {"command": "view", "path": "/memories/notes.txt"},
    {"command": "insert", "path": "/memories/notes.txt", "insert_line": 0, "insert_text": "first\n"},
    {"command": "insert", "path": "/memories/notes.txt", "insert_line": 2, "insert_text": "two\nlines"},
    {"command": "insert", "path": "/memories/notes.txt", "insert_line": 99, "insert_text": "late"},
    {"command": "insert", "path": "/memories/notes.txt", "insert_line": -1, "insert_text": "early"},
    {"command": "insert", "path": "/memories/no-end", "insert_line": 2, "insert_text": "three\n\n"},
    {"command": "insert", "path": "/memories/empty", "insert_line": 0, "insert_text": "no more"},
    {"command": "insert", "path": "/memories/crlf", "insert_line": 1, "insert_text": "between\r\n"},
    {"command": "insert", "path": "/memories/nothing", "insert_line": 0, "insert_text": "x"},
    {"command": "view", "path": "/memories/notes.txt"},
    {"command": "view", "path": "/memories/no-end"},
    {"command": "view", "path": "/memories/empty"},
    {"command": "view", "path": "/memories/crlf"},
    {"command": "rename", "old_path": "/memories/notes.txt", "new_path": "/memories/deep/notes.txt"},
    {"command": "rename", "old_path": "/memories/notes.txt", "new_path": "/memories/x"},
    {"command": "rename", "old_path": "/memories/deep/b.md", "new_path": "/memories/no-end"},
    {"command": "rename", "old_path": "/memories", "new_path": "/memories/x"},
    {"command": "rename", "old_path": "/memories/deep", "new_path": "/memories/other"},
    {"command": "view", "path": "/memories/other/notes.txt"},
    {"command": "view", "path": "/memories/deep/notes.txt"},
    {"command": "delete", "path": "/memories/other/er"},
    {"command": "delete", "path": "/memories/other/b.md"},
    {"command": "delete", "path": "/memories/other/b.md"},
    {"command": "delete", "path": "/memories"},
    {"command": "create", "path": "/memories/other/b.md", "file_text": "b again"},
    {"command": "view", "path": "/memories/other/b.md"},
]  # fmt: skip


def random_file_calls(seed, count):
    """What is edited is viewed too, so that a wrong text shows; directories are never emptied: there the kernel has none left."""
    rng = random.Random(seed)
    paths = ["/memories/a", "/memories/b.md", "/memories/d/a", "/memories/d/ä b", "/memories/d/e/f"]
    texts = ["", "one\n", "one\ntwo\nthree\n", "one\ntwo\n\nfour", "x\nx\n", "\tähm\n"]
    yield {"command": "create", "path": "/memories/d/e/keep", "file_text": "k"}
    for _ in range(count):
        path = rng.choice(paths)
        kind = rng.randrange(6)
        if kind == 0:
            yield {"command": "create", "path": path, "file_text": rng.choice(texts)}
        elif kind == 1:
            yield {
                "command": "str_replace",
                "path": path,
                "old_str": rng.choice(("one", "x", "\n\n", "t")),
                "new_str": rng.choice(texts),
            }
        elif kind == 2:
            yield {
                "command": "insert",
                "path": path,
                "insert_line": rng.randint(-1, 5),
                "insert_text": rng.choice(texts),
            }
        elif kind == 3:
            yield {"command": "delete", "path": path}
        elif kind == 4:
            yield {"command": "rename", "old_path": path, "new_path": rng.choice(paths)}
        yield {"command": "view", "path": path}


GRAPH_CALLS = [*GRAPH_SCRIPT, *random_graph_calls(1, 100)]
FILE_CALLS = [*FILE_SCRIPT, *random_file_calls(0, 60)]

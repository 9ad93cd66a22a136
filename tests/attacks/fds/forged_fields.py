# Claims fields in its result that are the kernel's own.
# severity: high
# escape: forged
from raw import END, frame, say, stay, tried
import json

tried()
fields = {
    name: "forged"
    for name in ("tier", "layers", "usage", "stopped_by", "degraded", "id", "files", "outputs", "stdout_uri", "uri")
}
say(frame(END, json.dumps({"exit_code": 0, "value": "fine", **fields}).encode()))
stay(5)

# Hashes, signatures, random tokens.
# stdout: 'ba7816bf d34bb27a 64 True\n'
import hashlib
import hmac
import secrets
import uuid

print(
    hashlib.sha256(b"abc").hexdigest()[:8],
    hmac.new(b"key", b"The quick", "sha256").hexdigest()[:8],
    len(secrets.token_hex(32)),
    uuid.uuid4() != uuid.uuid4(),
)

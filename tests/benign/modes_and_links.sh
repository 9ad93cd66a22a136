# Modes, links, copies with attributes, a program of its own.
# stdout: '640\nhello\nhello\nA=1\n'
# files: e, f, g, run.sh
echo hello > f
chmod 640 f
stat -c %a f
ln -s f link
cat link
cp -p f g
cat g
cp -p /usr/bin/env e
printf '#!/bin/sh\n./e -i A=1 ./e\n' > run.sh
chmod +x run.sh
./run.sh

# A FIFO between two jobs.
# stdout: 'through\n'
mkfifo p
echo through > p &
cat p
wait
rm p

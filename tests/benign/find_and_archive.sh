# Finds, archives, unpacks, counts.
# stdout: '2\n./a.txt\n./d/b.txt\n'
# files: a.txt, all.tar.gz, d/b.txt, out/a.txt, out/d/b.txt
mkdir -p d out
echo x > a.txt
echo y > d/b.txt
find . -name '*.txt' | wc -l
tar czf all.tar.gz a.txt d
tar xzf all.tar.gz -C out
cd out && find . -name '*.txt' | sort

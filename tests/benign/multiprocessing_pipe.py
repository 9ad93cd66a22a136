# Two processes that speak over a pipe, which needs no lock.
# stdout: '42\n0\n'
import multiprocessing


def child(end):
    end.send(6 * 7)
    end.close()


if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=child, args=(theirs,))
    process.start()
    print(ours.recv())
    process.join()
    print(process.exitcode)

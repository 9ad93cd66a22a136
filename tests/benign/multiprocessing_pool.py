# Squares in a pool of processes.
# stdout: '[0, 1, 4, 9]\n'
# price: confined: no `multiprocessing` locks
import multiprocessing


def square(n):
    return n * n


if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(4)))

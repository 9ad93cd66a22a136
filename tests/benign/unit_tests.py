# Runs unit tests of its own.
# stdout: '2 0 0\n'
import io
import unittest


class Arithmetic(unittest.TestCase):
    def test_sum(self):
        self.assertEqual(1 + 1, 2)

    def test_division(self):
        with self.assertRaises(ZeroDivisionError):
            1 // 0


result = unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(Arithmetic))
print(result.testsRun, len(result.failures), len(result.errors))

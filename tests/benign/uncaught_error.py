# Raises: the output before it and the code of an error are there.
# stdout: 'begun\n'
# exit: 1
print("begun")
{}["missing"]

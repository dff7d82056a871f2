"""What an operator installs and runs: locks, the package, the files of a deployment, the store."""

"""Many runs: which there are, how they are carried out, which is better."""

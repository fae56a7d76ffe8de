"""What `zoo doctor` looks at: is all that zoo needs here, does it fit together, is it whole?"""

"""How vectors become whole numbers and come back."""

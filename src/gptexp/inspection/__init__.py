"""What a trained model does with one text, token by token and head by head, for the page of `gptexp inspect`."""

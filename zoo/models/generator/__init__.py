"""Models that draw: a prompt, a stack over codes, and a visual tokenizer that shows what they mean.

DALL-E, Parti, Muse, MaskGIT, Phenaki and their open relatives are nodes of one kind. Its stack is
causal and writes code after code, or it is not and fills in masked ones; it reads the prompt as
tokens before the codes, or by cross-attention.
"""

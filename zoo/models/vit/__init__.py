"""Vision transformers: ViT, DeiT, DINO-style, SigLIP and CLIP towers as one model."""

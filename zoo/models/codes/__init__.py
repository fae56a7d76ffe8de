"""Visual tokenizers: pictures and video to codes and back (dVAE, VQ-GAN, ViT-VQGAN, C-ViViT)."""

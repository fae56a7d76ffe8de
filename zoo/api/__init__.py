"""The functions behind `import zoo`: describe (torch-free), build, share."""

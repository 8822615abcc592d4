"""Caption images with BLIP, BLIP-2 or a vision-language chat model: `capivara caption`."""

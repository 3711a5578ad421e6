"""Reports: pages and PDFs to hand on, made of chapters, for anybody's network and pictures."""

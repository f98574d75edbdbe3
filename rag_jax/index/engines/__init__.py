"""Search engines behind one interface: exact on the device, FAISS, BM25, and their fusion."""

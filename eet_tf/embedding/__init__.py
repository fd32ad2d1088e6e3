"""The embedding room: files of embeddings that many machines may write, and the Beam pipeline that writes them."""

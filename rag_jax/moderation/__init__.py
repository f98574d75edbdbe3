"""Moderation: a language model judges questions, passages and answers by the likelihood of a category's name."""

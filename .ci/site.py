"""What MkDocs does beyond its settings: the model card, which lies beside the weights, becomes a page of the site."""

from pathlib import Path

CARD = "gid_jax/pretrained/MODEL_CARD.md"


def on_page_markdown(markdown, *, page, config, files):
  """Puts the card in the place of the page that points to it, and has links to the card lead to that page."""
  if page.file.src_uri == "model-card.md":
    text = (Path(config.config_file_path).parent / CARD).read_text()
    return text.replace("](../../docs/", "](")
  up = "../" * page.file.src_uri.count("/")
  return markdown.replace(f"](../{up}{CARD})", f"]({up}model-card.md)")

"""Training configurations: one file a stage, sizes after a colon (`:tiny`, `:default`, `:large`, `:paper`)."""

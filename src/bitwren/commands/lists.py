"""Commands that only list: recipes and datasets."""


def recipes(arguments) -> int:
    """bitwren recipes."""
    from bitwren.recipe import known_keys, load_recipe, packaged_recipes

    if arguments.keys:
        for key, field in known_keys().items():
            default = "" if field.default is None else f" [{field.default!r}]"
            print(f"{key:<26} {field.metadata['meaning']}{default}")
        return 0
    for name in packaged_recipes():
        recipe = load_recipe(name)
        published = f"{recipe.published:6.2f} %" if recipe.published is not None else " " * 8
        print(f"{name:<34} {published}  {recipe.title}")
    print("\nThe percentage is the accuracy that the authors published. What --set can change: bitwren recipes --keys")
    return 0


def datasets(arguments) -> int:
    """bitwren datasets."""
    from bitwren.pictures import DATASETS

    for name, entry in DATASETS.items():
        print(f"{name:<16} {entry.summary}")
    return 0


def zoo(arguments) -> int:
    """bitwren zoo [NAME]."""
    from bitwren.deploy.zoo import card_text, packaged_networks, read_card
    from bitwren.terminal import aligned, ruled

    if arguments.name is not None:
        print(card_text(arguments.name), end="")
        return 0
    rows = [("name", "data", "float", "integer", "pictures", "bytes", "mults")]
    for name in packaged_networks():
        card = read_card(name)
        accuracy, network = card["accuracy"], card["network"]
        rows.append(
            (
                name,
                card["data"]["name"],
                f"{accuracy['float']:.2%}",
                f"{accuracy['integer']:.2%}",
                f"{accuracy['pictures']:,}",
                f"{network['bytes']:,}",
                f"{network['multiplications']:,}",
            )
        )
    print(ruled(aligned(rows, left=2)))
    print("\nAccuracy on all test pictures, float and integer; multiplications for a picture. A card: bitwren zoo NAME")
    return 0

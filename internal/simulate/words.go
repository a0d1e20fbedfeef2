package simulate

// home is the country of the shop.
const home = "United Kingdom"

var (
	countries = []string{"EIRE", "Germany", "France", "Norway", "Netherlands", "Spain", "Switzerland", "Österreich", "日本"}
	colours   = []string{
		"RED", "IVORY", "PINK", "BLACK", "SKY BLUE", "GREEN", "SILVER", "GOLD", "WHITE", "CREAM",
		"POLKADOT", "STRIPED", "PAISLEY", "FLORAL",
	}
	materials = []string{
		"WOODEN", "GLASS", "CERAMIC", "METAL", "KNITTED", "WICKER", "ENAMEL", "PAPER", "COTTON",
		"SET OF 6", "VINTAGE", "SMALL", "LARGE",
	}
	things = []string{
		"T-LIGHT HOLDER", "CAKE STAND", "LUNCH BAG", "ALARM CLOCK", "PHOTO FRAME", "HOT WATER BOTTLE",
		"TEA TOWEL", "JAM JAR", "MUG", "DOORMAT", "CANDLE", "GIFT TAG", "CUSHION", "BIRD HOUSE",
		"CARD GAME", "NAPKINS", "HOOK", "TRINKET BOX", "SHOPPER", "CHALKBOARD 12\"",
	}
	notes = []string{
		"deliver to the back door", "gift: please leave the price off", "call before delivery",
		"customer's own carrier <collect>", "Lieferung nur vormittags", "no substitutes & no part deliveries",
	}
)

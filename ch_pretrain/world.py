"""The classroom world: tables of facts, written out by hand.

Everything the classroom model can know stands in this file. `classroom.py` turns the tables into plain pages (to
pretrain on) and into instruction records (to fine-tune and test on). A table is one string, so that it reads like one:
entries are separated by commas, the parts of an entry by a slash.
"""


def table(text: str) -> list[tuple[str, ...]]:
    """Split "a / b, c / d" into [("a", "b"), ("c", "d")]."""
    return [tuple(part.strip() for part in entry.split("/")) for entry in text.split(",")]


# country / capital / continent
COUNTRIES = table("""
France / Paris / Europe, Italy / Rome / Europe, Spain / Madrid / Europe, Portugal / Lisbon / Europe,
Germany / Berlin / Europe, Austria / Vienna / Europe, Poland / Warsaw / Europe, Greece / Athens / Europe,
Norway / Oslo / Europe, Sweden / Stockholm / Europe, Finland / Helsinki / Europe, Denmark / Copenhagen / Europe,
Ireland / Dublin / Europe, Iceland / Reykjavik / Europe, Hungary / Budapest / Europe, Romania / Bucharest / Europe,
Bulgaria / Sofia / Europe, Croatia / Zagreb / Europe, Serbia / Belgrade / Europe, Albania / Tirana / Europe,
Estonia / Tallinn / Europe, Latvia / Riga / Europe, Lithuania / Vilnius / Europe, Ukraine / Kyiv / Europe,
Belgium / Brussels / Europe, Slovenia / Ljubljana / Europe, Slovakia / Bratislava / Europe, Malta / Valletta / Europe,
Egypt / Cairo / Africa, Kenya / Nairobi / Africa, Ghana / Accra / Africa, Nigeria / Abuja / Africa,
Morocco / Rabat / Africa, Tunisia / Tunis / Africa, Algeria / Algiers / Africa, Libya / Tripoli / Africa,
Senegal / Dakar / Africa, Mali / Bamako / Africa, Niger / Niamey / Africa, Sudan / Khartoum / Africa,
Uganda / Kampala / Africa, Rwanda / Kigali / Africa, Zambia / Lusaka / Africa, Zimbabwe / Harare / Africa,
Angola / Luanda / Africa, Namibia / Windhoek / Africa, Botswana / Gaborone / Africa, Somalia / Mogadishu / Africa,
Liberia / Monrovia / Africa, Madagascar / Antananarivo / Africa, Mozambique / Maputo / Africa, Togo / Lome / Africa,
China / Beijing / Asia, Japan / Tokyo / Asia, India / Delhi / Asia, Nepal / Kathmandu / Asia,
Thailand / Bangkok / Asia, Vietnam / Hanoi / Asia, Mongolia / Ulaanbaatar / Asia, Iran / Tehran / Asia,
Iraq / Baghdad / Asia, Syria / Damascus / Asia, Lebanon / Beirut / Asia, Jordan / Amman / Asia,
Qatar / Doha / Asia, Oman / Muscat / Asia, Yemen / Sanaa / Asia, Pakistan / Islamabad / Asia,
Bangladesh / Dhaka / Asia, Indonesia / Jakarta / Asia, Cambodia / Phnom Penh / Asia, Laos / Vientiane / Asia,
Turkey / Ankara / Asia, Georgia / Tbilisi / Asia, Armenia / Yerevan / Asia, Bhutan / Thimphu / Asia,
Canada / Ottawa / America, Mexico / Mexico City / America, Cuba / Havana / America, Jamaica / Kingston / America,
Haiti / Port-au-Prince / America, Panama / Panama City / America, Honduras / Tegucigalpa / America,
Nicaragua / Managua / America, Brazil / Brasilia / America, Argentina / Buenos Aires / America,
Chile / Santiago / America, Peru / Lima / America, Bolivia / Sucre / America, Ecuador / Quito / America,
Colombia / Bogota / America, Venezuela / Caracas / America, Uruguay / Montevideo / America,
Paraguay / Asuncion / America, Guyana / Georgetown / America, Suriname / Paramaribo / America,
Australia / Canberra / Oceania, Fiji / Suva / Oceania, Samoa / Apia / Oceania, Tonga / Nukualofa / Oceania
""")

# a word / its opposite (asked in both directions)
OPPOSITES = table("""
hot / cold, big / small, fast / slow, high / low, old / young, long / short, wide / narrow, thick / thin, heavy / light,
hard / soft, wet / dry, full / empty, open / closed, early / late, rich / poor, strong / weak, bright / dim,
clean / dirty, happy / sad, brave / afraid, quiet / loud, sweet / bitter, sharp / blunt, smooth / rough, deep / shallow,
near / far, inside / outside, above / below, before / after, left / right, up / down, day / night, summer / winter,
black / white, true / false, good / bad, first / last, same / different, safe / dangerous,
cheap / expensive, simple / complicated, polite / rude, awake / asleep, alive / dead, begin / end,
buy / sell, give / take, push / pull, win / lose, laugh / cry, love / hate, remember / forget, arrive / leave,
rise / fall, float / sink, build / destroy, borrow / lend, find / miss, friend / enemy, morning / evening,
north / south, east / west, peace / war, question / answer, teacher / student, guest / host, winner / loser,
front / back, top / bottom, arrival / departure, success / failure, often / seldom, always / never, many / few,
more / less, fresh / stale, tight / loose, straight / crooked, tame / wild, lazy / busy, generous / selfish,
careful / careless, honest / lying, proud / humble, modern / ancient, public / secret, real / imaginary, raw / cooked,
solid / liquid, possible / impossible, visible / hidden, upstairs / downstairs, forward / backward, plus / minus
""")

# singular / plural
NOUNS = table("""
cat / cats, dog / dogs, book / books, tree / trees, house / houses, car / cars, girl / girls, boy / boys, lake / lakes,
river / rivers, garden / gardens, window / windows, table / tables, chair / chairs, apple / apples, flower / flowers,
letter / letters, picture / pictures, ship / ships, road / roads, bridge / bridges, cloud / clouds, stone / stones,
box / boxes, fox / foxes, dish / dishes, wish / wishes, brush / brushes, bus / buses, class / classes, glass / glasses,
dress / dresses, church / churches, bench / benches, watch / watches, match / matches, peach / peaches,
branch / branches, beach / beaches, lunch / lunches, city / cities, baby / babies, lady / ladies, story / stories,
party / parties, country / countries, family / families, berry / berries, cherry / cherries, pony / ponies,
army / armies, fly / flies, spy / spies, penny / pennies, puppy / puppies, factory / factories, pencil / pencils,
key / keys, toy / toys, day / days, monkey / monkeys, donkey / donkeys, valley / valleys, tray / trays,
leaf / leaves, knife / knives, wife / wives, wolf / wolves, shelf / shelves, loaf / loaves, thief / thieves,
half / halves, calf / calves, scarf / scarves, man / men, woman / women, child / children, foot / feet, tooth / teeth,
goose / geese, mouse / mice, ox / oxen, person / people, sheep / sheep, fish / fish, deer / deer, potato / potatoes,
tomato / tomatoes, hero / heroes, echo / echoes, piano / pianos, photo / photos, radio / radios, roof / roofs,
chief / chiefs, cactus / cacti, crisis / crises, snowman / snowmen, fireman / firemen, grandchild / grandchildren
""")

# verb / past tense
VERBS = table("""
go / went, see / saw, eat / ate, drink / drank, run / ran, sing / sang, swim / swam, begin / began, ring / rang,
come / came, give / gave, take / took, make / made, have / had, say / said, tell / told, find / found, think / thought,
bring / brought, buy / bought, catch / caught, teach / taught, fight / fought, write / wrote, ride / rode,
drive / drove, break / broke, speak / spoke, steal / stole, choose / chose, freeze / froze, wake / woke, wear / wore,
grow / grew, know / knew, throw / threw, blow / blew, draw / drew, fly / flew, fall / fell, feel / felt, keep / kept,
sleep / slept, leave / left, lose / lost, meet / met, send / sent, spend / spent, build / built, lend / lent,
sit / sat, stand / stood, understand / understood, win / won, hold / held, hear / heard, read / read, lead / led,
feed / fed, shine / shone, shoot / shot, hang / hung, dig / dug, stick / stuck, bite / bit, hide / hid, forget / forgot,
get / got, sell / sold, pay / paid, cut / cut, put / put, hit / hit, shut / shut, let / let, cost / cost, hurt / hurt,
walk / walked, talk / talked, play / played, jump / jumped, look / looked, help / helped, open / opened, ask / asked,
laugh / laughed, call / called, clean / cleaned, cook / cooked, paint / painted, wait / waited, want / wanted,
need / needed, dance / danced, smile / smiled, live / lived, like / liked, love / loved, hope / hoped, bake / baked,
carry / carried, cry / cried, try / tried, study / studied, hurry / hurried, marry / married, stop / stopped,
plan / planned, drop / dropped, shop / shopped, hug / hugged, answer / answered, travel / traveled
""")

# animal / its young / its home
ANIMALS = table("""
cow / calf / stable, dog / puppy / kennel, cat / kitten / basket, sheep / lamb / fold, goat / kid / shed,
horse / foal / paddock, pig / piglet / sty, hen / chick / coop, duck / duckling / pond, goose / gosling / meadow,
swan / cygnet / lake, bear / cub / cave, deer / fawn / forest, frog / tadpole / ditch, kangaroo / joey / bush,
rabbit / bunny / burrow, owl / owlet / barn, eagle / eaglet / cliff, hare / leveret / field, eel / elver / river,
butterfly / caterpillar / garden, bee / larva / hive, fish / fry / sea, bird / nestling / nest, mouse / pinkie / hole,
pigeon / squab / loft, spider / spiderling / web, turkey / poult / yard, llama / cria / mountain,
hedgehog / hoglet / hedge, platypus / puggle / stream, crane / chick / marsh, wolf / whelp / den,
oyster / spat / reef, salmon / parr / brook, moth / grub / attic, ant / larva / hill, penguin / chick / ice,
falcon / eyas / tower, zebra / foal / savanna
""")

# thing / what kind of thing it is / color
THINGS = table("""
banana / fruit / yellow, cherry / fruit / red, plum / fruit / purple, lime / fruit / green, peach / fruit / orange,
lemon / fruit / yellow, strawberry / fruit / red, kiwi / fruit / green, blueberry / fruit / blue, fig / fruit / purple,
carrot / vegetable / orange, pea / vegetable / green, radish / vegetable / red, cucumber / vegetable / green,
pumpkin / vegetable / orange, spinach / vegetable / green, cauliflower / vegetable / white, beet / vegetable / purple,
crow / bird / black, flamingo / bird / pink, canary / bird / yellow, raven / bird / black, dove / bird / white,
sparrow / bird / brown, robin / bird / red, parrot / bird / green, seagull / bird / gray, peacock / bird / blue,
elephant / mammal / gray, lion / mammal / yellow, dolphin / mammal / gray, squirrel / mammal / red,
beaver / mammal / brown, panther / mammal / black, hamster / mammal / brown, seal / mammal / gray,
rose / flower / red, daisy / flower / white, sunflower / flower / yellow, violet / flower / purple,
lily / flower / white, tulip / flower / pink, cornflower / flower / blue, daffodil / flower / yellow,
hammer / tool / gray, saw / tool / silver, shovel / tool / brown, axe / tool / silver, rake / tool / green,
shirt / piece of clothing / white, sock / piece of clothing / gray, coat / piece of clothing / brown,
glove / piece of clothing / black, hat / piece of clothing / blue, skirt / piece of clothing / pink,
violin / instrument / brown, flute / instrument / silver, trumpet / instrument / gold, drum / instrument / red,
harp / instrument / gold, guitar / instrument / orange, gold ring / piece of jewelry / gold,
sofa / piece of furniture / green, desk / piece of furniture / brown, bed / piece of furniture / white,
wardrobe / piece of furniture / black, stool / piece of furniture / blue, ruby / gem / red, emerald / gem / green,
sapphire / gem / blue, diamond / gem / clear, pearl / gem / white, amber / gem / orange, bus / vehicle / yellow,
taxi / vehicle / black, tractor / vehicle / green, ambulance / vehicle / white, fire engine / vehicle / red,
bicycle / vehicle / blue, milk / drink / white, coffee / drink / brown, tea / drink / green, cocoa / drink / brown
""")

# job / what the person does
JOBS = table("""
baker / bakes bread, teacher / teaches children, doctor / helps sick people, farmer / grows food, pilot / flies planes,
sailor / sails ships, tailor / makes clothes, cook / prepares meals, painter / paints walls, writer / writes books,
singer / sings songs, dancer / dances on a stage, judge / decides in court, nurse / cares for patients,
miner / digs for coal, butcher / sells meat, florist / sells flowers, grocer / sells vegetables, barber / cuts hair,
carpenter / works with wood, smith / works with iron, potter / makes pots, weaver / weaves cloth, hunter / hunts animals,
fisherman / catches fish, gardener / looks after gardens, plumber / repairs pipes, mechanic / repairs cars,
dentist / takes care of teeth, librarian / lends books, postman / brings letters, policeman / catches thieves,
firefighter / puts out fires, astronaut / travels into space, actor / plays in films, shepherd / looks after sheep,
beekeeper / keeps bees, cobbler / mends shoes, glazier / puts in windows, mason / builds walls, jeweler / makes rings,
photographer / takes pictures, reporter / writes the news, waiter / serves guests, cashier / counts money,
locksmith / opens locks, printer / prints newspapers, diver / dives for pearls, surveyor / measures land,
translator / puts books into other languages
""")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LETTERS = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z".split()

# For lists and little stories.
NAMES = "Anna Ben Clara David Emma Felix Greta Henry Iris Jonas Kate Leo Mia Noah Olga Paul Rosa Simon Tina Victor".split()
TOYS = "ball kite doll drum boat train puzzle book lamp bell cup hat ring map coin flag whistle basket rope candle".split()
WORDS = ("apple bread chair dream earth field glass heart island jacket kitchen lemon mirror night ocean paper queen "
         "river stone tiger uncle village water yard zebra cloud forest garden letter music").split()
PLACES = "kitchen garden cellar attic school station market library park stable office museum".split()

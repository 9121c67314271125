"""Words for what a place in a scene may be, when nobody has asked for anything yet."""

_WORDS = """
person, face, hand, hair, shoe, hat, glasses, shirt, jacket, dress, bag, backpack, suitcase, umbrella, cat, dog,
bird, horse, cow, sheep, rabbit, fox, bear, elephant, lion, fish, insect, butterfly, snake, frog, teddy bear,
flower, tree, bush, grass, leaf, mushroom, potted plant, wood, rock, gravel, sand, snow, water, sky, cloud,
mountain, bread, cake, fruit, apple, banana, orange, lemon, tomato, vegetables, meat, cheese, egg, noodles, soup,
ice cream, coffee, tea, wine, beer, cup, mug, glass, bottle, plate, bowl, spoon, fork, knife, chopsticks, pot, pan,
kettle, table, chair, sofa, bed, desk, shelf, cupboard, drawer, bench, stool, lamp, candle, mirror, clock, vase,
basket, box, pillow, blanket, towel, curtain, carpet, wallpaper, picture, poster, photo frame, toy, doll, ball,
balloon, guitar, piano, drum, violin, book, newspaper, paper, pen, pencil, scissors, tape, key, coin, wallet, phone,
laptop, keyboard, computer mouse, monitor, television, camera, headphones, speaker, remote control, cable, plug,
fan, radio, refrigerator, oven, microwave, toaster, sink, toilet, bathtub, soap, toothbrush, sponge, broom, bucket,
bin, iron, hammer, screwdriver, drill, saw, wrench, screw, rope, ladder, wheel, engine, pipe, wire, machine, robot,
car, truck, bus, motorcycle, bicycle, train, boat, ship, airplane, helicopter, rocket, astronaut, traffic light,
sign, house, building, church, temple, castle, tower, bridge, road, street, fence, gate, wall, brick, roof, door,
window, stairs, floor, ceiling, tile, stone, concrete, metal, plastic, leather, cloth, statue, fountain, garden,
beach, forest
"""

VOCABULARY = tuple(" ".join(word.split()) for word in _WORDS.split(","))
"""Things and materials that photos of rooms, tables, streets and gardens show."""

// QR codes of texts as bytes, with the least error correction (ISO/IEC 18004, level L): links of secrets are encoded where they are.

/** Of level L by version, from 1: bytes of error correction in a block, and blocks. */
const CHECKS = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30];
const BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25];
/** Chosen: any mask can be read, and letters of links are as good as random. A chessboard. */
const MASK = 0;
/** Level L in the format bits. */
const LEVEL = 1;
/** Of the field of the error correction: x^8 + x^4 + x^3 + x^2 + 1. */
const FIELD = 0x11d;

/** Rows of 1 (dark) and 0, or null: the text is too long. */
export function encode(text) {
    const bytes = new TextEncoder().encode(text);
    const fits = (_, at) => headed(bytes, at + 1) <= room(at + 1);
    const version = CHECKS.findIndex(fits) + 1;
    return version === 0 ? null : draw(version, interleaved(version, padded(version, bytes)));
}

/** Bits of a text with its head. */
function headed(bytes, version) {
    const length = version < 10 ? 8 : 16;
    return bytes.length < 2 ** length ? 4 + length + 8 * bytes.length : Infinity;
}

/** Bits for data. */
function room(version) {
    return 8 * (total(version) - CHECKS[version - 1] * BLOCKS[version - 1]);
}

/** Bytes of a version, with error correction. */
function total(version) {
    const marks = version < 2 ? 0 : Math.floor(version / 7) + 2;
    const ofMarks = version < 2 ? 0 : (25 * marks - 10) * marks - 55 + (version < 7 ? 0 : 36);
    return Math.floor(((16 * version + 128) * version + 64 - ofMarks) / 8);
}

function padded(version, bytes) {
    const bits = [];
    const put = (value, count) => {
        for (let at = count - 1; at >= 0; at -= 1) {
            bits.push((value >>> at) & 1);
        }
    };
    put(4, 4);
    put(bytes.length, version < 10 ? 8 : 16);
    bytes.forEach((byte) => put(byte, 8));
    put(0, Math.min(4, room(version) - bits.length));
    put(0, (8 - (bits.length % 8)) % 8);
    for (let pad = 0xec; bits.length < room(version); pad ^= 0xec ^ 0x11) {
        put(pad, 8);
    }
    return Array.from({ length: bits.length / 8 }, (_, at) => bits.slice(8 * at, 8 * at + 8).reduce((byte, bit) => 2 * byte + bit, 0));
}

function times(a, b) {
    let product = 0;
    for (let bit = 7; bit >= 0; bit -= 1) {
        product = (product << 1) ^ ((product >>> 7) * FIELD);
        product ^= ((b >>> bit) & 1) * a;
    }
    return product;
}

/** The generator of so many checks, without its first coefficient, which is 1. */
function generator(count) {
    const made = [...Array(count - 1).fill(0), 1];
    for (let at = 0, root = 1; at < count; at += 1, root = times(root, 2)) {
        for (let i = 0; i < count; i += 1) {
            made[i] = times(made[i], root) ^ (made[i + 1] ?? 0);
        }
    }
    return made;
}

function checks(data, by) {
    const rest = by.map(() => 0);
    for (const byte of data) {
        const factor = byte ^ rest.shift();
        rest.push(0);
        by.forEach((coefficient, i) => (rest[i] ^= times(coefficient, factor)));
    }
    return rest;
}

/** The bytes of all blocks in turn; the last blocks may be a byte longer. */
function interleaved(version, data) {
    const [count, ofChecks] = [BLOCKS[version - 1], CHECKS[version - 1]];
    const short = Math.floor(data.length / count);
    const longer = data.length % count;
    const by = generator(ofChecks);
    let from = 0;
    const blocks = Array.from({ length: count }, (_, at) => {
        const block = data.slice(from, from + short + (at < count - longer ? 0 : 1));
        from += block.length;
        return block;
    });
    const inTurn = (all, length) => Array.from({ length }, (_, i) => all.filter((block) => i < block.length).map((block) => block[i])).flat();
    return [...inTurn(blocks, short + 1), ...inTurn(blocks.map((block) => checks(block, by)), ofChecks)];
}

/** The middles of the marks by which a reader finds lines. */
function middles(version) {
    if (version < 2) {
        return [];
    }
    const marks = Math.floor(version / 7) + 2;
    const apart = version === 32 ? 26 : Math.ceil((4 * version + 4) / (2 * marks - 2)) * 2;
    const others = Array.from({ length: marks - 1 }, (_, at) => 4 * version + 10 - at * apart);
    return [6, ...others.reverse()];
}

function draw(version, data) {
    const side = 4 * version + 17;
    const rows = Array.from({ length: side }, () => Array(side).fill(null));
    const set = (x, y, isDark) => {
        if (x >= 0 && y >= 0 && x < side && y < side) {
            rows[y][x] = isDark ? 1 : 0;
        }
    };
    const square = (x, y, reach, isDark) => {
        for (let dy = -reach; dy <= reach; dy += 1) {
            for (let dx = -reach; dx <= reach; dx += 1) {
                set(x + dx, y + dy, isDark(Math.max(Math.abs(dx), Math.abs(dy))));
            }
        }
    };
    for (let at = 0; at < side; at += 1) {
        set(6, at, at % 2 === 0);
        set(at, 6, at % 2 === 0);
    }
    [[3, 3], [side - 4, 3], [3, side - 4]].forEach(([x, y]) => square(x, y, 4, (far) => far !== 2 && far !== 4));
    const all = middles(version);
    const last = all.at(-1);
    const isCorner = (x, y) => (x === 6 && (y === 6 || y === last)) || (x === last && y === 6);
    all.forEach((x) => all.forEach((y) => isCorner(x, y) || square(x, y, 2, (far) => far !== 1)));
    setFormat(set, side);
    version >= 7 && setVersion(set, side, version);
    fillIn(rows, data);
    return rows.map((row) => row.join(""));
}

/** A number with its checks: of so many bits, by this generator. */
function checked(value, bits, by) {
    let rest = value;
    for (let at = 0; at < bits; at += 1) {
        rest = (rest << 1) ^ ((rest >>> (bits - 1)) * by);
    }
    return (value << bits) | rest;
}

function setFormat(set, side) {
    const format = checked((LEVEL << 3) | MASK, 10, 0x537) ^ 0x5412;
    const bit = (at) => ((format >>> at) & 1) === 1;
    for (let at = 0; at < 15; at += 1) {
        // beside the first corner, past the lines at 6; and again beside the two others
        at < 8 ? set(8, at < 6 ? at : at + 1, bit(at)) : set(at === 8 ? 7 : 14 - at, 8, bit(at));
        at < 8 ? set(side - 1 - at, 8, bit(at)) : set(8, side - 15 + at, bit(at));
    }
    set(8, side - 8, true);
}

function setVersion(set, side, version) {
    const bits = checked(version, 12, 0x1f25);
    for (let at = 0; at < 18; at += 1) {
        const [far, near] = [side - 11 + (at % 3), Math.floor(at / 3)];
        const isDark = ((bits >>> at) & 1) === 1;
        set(far, near, isDark);
        set(near, far, isDark);
    }
}

/** Data goes up and down in columns of two from the right, past what is set. */
function fillIn(rows, data) {
    const side = rows.length;
    let at = 0;
    for (let pair = 0, right = side - 1; right >= 1; pair += 1, right -= 2) {
        right -= right === 6 ? 1 : 0;
        for (let step = 0; step < side; step += 1) {
            const y = pair % 2 === 0 ? side - 1 - step : step;
            for (const x of [right, right - 1]) {
                if (rows[y][x] === null) {
                    const bit = ((data[at >>> 3] ?? 0) >>> (7 - (at & 7))) & 1;
                    rows[y][x] = bit ^ ((x + y) % 2 === 0 ? 1 : 0);
                    at += 1;
                }
            }
        }
    }
}

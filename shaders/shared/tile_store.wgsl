// Writes the tile to OUT, whose rows are STRIDE long, from column FIRST on; with ADD on top of what is in FROM.
//#for a in DOWN
    if (row${a} < rows) {
//#for q in QUADS
        if (tile.col + ${q}u * 4u < params.cols) {
            let at = row${a} * ${STRIDE} + ${FIRST} + tile.col + ${q}u * 4u;
            var value = acc[${a}u * QUADS + ${q}u];
//#if ALIGNED
//#if ${ADD}
            value += ${FROM}[at >> 2u];
//#end
            ${OUT}[at >> 2u] = value;
//#else
            for (var j = 0u; j < min(4u, params.cols - tile.col - ${q}u * 4u); j++) {
//#if ${ADD}
                value[j] += ${FROM}[at + j];
//#end
                ${OUT}[at + j] = value[j];
            }
//#end
        }
//#end
    }
//#end

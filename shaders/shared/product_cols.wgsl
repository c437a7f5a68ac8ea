// acc += SCALE · (rows of LEFT, from column LEFT_FIRST on) · (columns of RIGHT's rows from RIGHT_FIRST on), INNER terms.
    {
//#for a in DOWN
    let left_at${a} = min(row${a}, rows - 1u) * ${LEFT_STRIDE} + ${LEFT_FIRST};
//#end
    for (var k = 0u; k < ${INNER}; k += 4u) {
//#for a in DOWN
        let left${a} = ${SCALE} * load_${LEFT}(left_at${a}, k, ${INNER});
//#end
//#for b in SPREAD
//#if SUBGROUP
        // Lane l loads four columns of one of the four terms.
        let term${b} = min(k + (${b}u * LANES + lane) / QUADS, ${INNER} - 1u);
        let quad${b} = tile.col + (${b}u * LANES + lane) % QUADS * 4u;
        let right${b} = load_${RIGHT}((${RIGHT_FIRST} + term${b}) * params.cols, min(quad${b}, last_quad), params.cols);
//#end
//#for l in LANES
        {
//#if SUBGROUP
            let v = subgroupBroadcast(right${b}, ${l}u);
//#else
            let term = min(k + (${b}u * LANES + ${l}u) / QUADS, ${INNER} - 1u);
            let quad = min(tile.col + (${b}u * LANES + ${l}u) % QUADS * 4u, last_quad);
            let v = load_${RIGHT}((${RIGHT_FIRST} + term) * params.cols, quad, params.cols);
//#end
//#for a in DOWN
            acc[${a}u * QUADS + (${b}u * LANES + ${l}u) % QUADS] = fma(vec4(left${a}[(${b}u * LANES + ${l}u) / QUADS]), v,
                acc[${a}u * QUADS + (${b}u * LANES + ${l}u) % QUADS]);
//#end
        }
//#end
//#end
    }
    }

// acc += SCALE · (rows of LEFT, from column LEFT_FIRST on) · (columns of RIGHT's rows from RIGHT_FIRST on), INNER terms.
    {
//#for a in DOWN
    let left_at${a} = min(row${a}, rows - 1u) * ${LEFT_STRIDE} + ${LEFT_FIRST};
//#end
    for (var k = 0u; k < ${INNER}; k += 4u) {
//#if STAGED
        // A stage has 16 terms: lane l loads four columns of term l / 4.
        if (k % 16u == 0u) {
            let term = min(k + lane / 4u, ${INNER} - 1u);
            let quad = min(tile.col + lane % 4u * 4u, last_quad);
            workgroupBarrier();
            stage[lane] = load_${RIGHT}((${RIGHT_FIRST} + term) * params.cols, quad, params.cols);
            workgroupBarrier();
        }
//#end
//#for a in DOWN
        let left${a} = ${SCALE} * load_${LEFT}(left_at${a}, k, ${INNER});
//#end
//#if SUBGROUP
//#for b in SPREAD
        // Lane l loads four columns of one of the four terms.
        let term${b} = min(k + (${b}u * LANES + lane) / QUADS, ${INNER} - 1u);
        let quad${b} = tile.col + (${b}u * LANES + lane) % QUADS * 4u;
        let right${b} = load_${RIGHT}((${RIGHT_FIRST} + term${b}) * params.cols, min(quad${b}, last_quad), params.cols);
//#for l in LANES
        {
            let v = subgroupBroadcast(right${b}, ${l}u);
//#for a in DOWN
            acc[${a}u * QUADS + (${b}u * LANES + ${l}u) % QUADS] = fma(vec4(left${a}[(${b}u * LANES + ${l}u) / QUADS]), v,
                acc[${a}u * QUADS + (${b}u * LANES + ${l}u) % QUADS]);
//#end
        }
//#end
//#end
//#else
//#for t in 4
//#for q in QUADS
        {
//#if STAGED
            let v = stage[(k % 16u + ${t}u) * 4u + ${q}u];
//#else
            let term = min(k + ${t}u, ${INNER} - 1u);
            let v = load_${RIGHT}((${RIGHT_FIRST} + term) * params.cols, min(tile.col + ${q}u * 4u, last_quad), params.cols);
//#end
//#for a in DOWN
            acc[${a}u * QUADS + ${q}u] = fma(vec4(left${a}[${t}]), v, acc[${a}u * QUADS + ${q}u]);
//#end
        }
//#end
//#end
//#end
    }
    }

// acc += SCALE · (rows of LEFT) · (rows of RIGHT, of which ROW names one for each column of the tile), both INNER long.
// With NORM the left rows are weighed by `gain`, and their squares are summed on the way.
    {
//#include product_addresses ROW=${ROW} INNER=${INNER}
    for (var k = 0u; k < ${INNER}; k += 4u) {
//#include product_stage STAGE=stage RIGHT=${RIGHT} INNER=${INNER}
//#if NORM
        let weight = load_gain(0u, k, ${INNER});
//#end
//#for a in DOWN
        var left${a} = ${SCALE} * load_${LEFT}(left_at${a}, k, ${INNER});
//#if NORM
        squares[${a}] += dot(left${a}, left${a});
        left${a} *= weight;
//#end
//#end
//#if SUBGROUP
//#for b in SPREAD
        let right${b} = load_${RIGHT}(right_at${b}, k, ${INNER});
//#for l in LANES
        {
            let v = subgroupBroadcast(right${b}, ${l}u);
//#for a in DOWN
            {
                let sum = acc[${a}u * QUADS + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u];
                acc[${a}u * QUADS + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u] = fma(left${a}.w, v.w, fma(left${a}.z, v.z, fma(left${a}.y, v.y, fma(left${a}.x, v.x, sum))));
            }
//#end
        }
//#end
//#end
//#else
//#for c in COLS
        {
//#if STAGED
            let v = stage[${c}u * 4u + k % 16u / 4u];
//#else
            let v = load_${RIGHT}(${ROW}(tile.col, ${c}u) * ${INNER}, k, ${INNER});
//#end
//#for a in DOWN
            {
                let sum = acc[${a}u * QUADS + ${c}u / 4u][${c}u % 4u];
                acc[${a}u * QUADS + ${c}u / 4u][${c}u % 4u] = fma(left${a}.w, v.w, fma(left${a}.z, v.z, fma(left${a}.y, v.y, fma(left${a}.x, v.x, sum))));
            }
//#end
        }
//#end
//#end
    }
    }

// acc += SCALE · (rows of LEFT) · (rows FIRST + column of RIGHT), both INNER long.
    {
//#for a in DOWN
    let left_at${a} = min(row${a}, rows - 1u) * ${INNER};
//#end
//#if SUBGROUP
//#for b in SPREAD
    let right_at${b} = (${FIRST} + min(tile.col + ${b}u * LANES + lane, params.cols - 1u)) * ${INNER};
//#end
//#end
    for (var k = 0u; k < ${INNER}; k += 4u) {
//#for a in DOWN
        let left${a} = ${SCALE} * load_${LEFT}(left_at${a}, k, ${INNER});
//#end
//#for b in SPREAD
//#if SUBGROUP
        let right${b} = load_${RIGHT}(right_at${b}, k, ${INNER});
//#end
//#for l in LANES
        {
//#if SUBGROUP
            let v = subgroupBroadcast(right${b}, ${l}u);
//#else
            let col = min(tile.col + ${b}u * LANES + ${l}u, params.cols - 1u);
            let v = load_${RIGHT}((${FIRST} + col) * ${INNER}, k, ${INNER});
//#end
//#for a in DOWN
            {
                let sum = acc[${a}u * QUADS + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u];
                acc[${a}u * QUADS + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u] = fma(left${a}.w, v.w,
                    fma(left${a}.z, v.z, fma(left${a}.y, v.y, fma(left${a}.x, v.x, sum))));
            }
//#end
        }
//#end
//#end
    }
    }

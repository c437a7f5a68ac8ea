// acc += (rows of LEFT) · (rows of RIGHT, f16), both INNER long, as product_rows, but in f16 as far as four terms go: two
// and two are multiplied and added in f16, the rest is f32.
// An f16 ends at 65504, so of a row of large activations nothing may be rounded as it is: each four elements are divided
// by the power of two that leaves the largest of them in [1/4, 1/2). Rounding to f16 keeps them at or below 1/2, and two
// products with whatever finite weights at or below 65504. The sum is multiplied by that power again, in f32. (From 2^125
// on the power stays 2^126; f16 overflows only where f32 would as well.) What much smaller elements lose, as subnormal
// numbers, is below 2^-22 of the largest; 2^-12 where the driver makes them 0, as it may of a weight below 2^-14.
    {
//#include product_addresses ROW=${ROW} INNER=${INNER}
    for (var k = 0u; k < ${INNER}; k += 4u) {
//#include product_stage STAGE=half_stage RIGHT=${RIGHT} INNER=${INNER}
//#if NORM
        let weight = load_gain(0u, k, ${INNER});
//#end
//#for a in DOWN
        var wide${a} = load_${LEFT}(left_at${a}, k, ${INNER});
//#if NORM
        squares[${a}] += dot(wide${a}, wide${a});
        wide${a} *= weight;
//#end
        let size${a} = abs(wide${a});
        let largest${a} = max(max(size${a}.x, size${a}.y), max(size${a}.z, size${a}.w));
        // The biased exponent: the power is 2^(exponent - 127 + 2).
        let exponent${a} = min(bitcast<u32>(largest${a}) >> 23u, 251u);
        let left${a} = vec4<f16>(wide${a} * bitcast<f32>((252u - exponent${a}) << 23u));
        let power${a} = bitcast<f32>((exponent${a} + 2u) << 23u);
//#end
//#if SUBGROUP
//#for b in SPREAD
        let right${b} = load_${RIGHT}(right_at${b}, k, ${INNER});
//#for l in LANES
        {
            let words = subgroupBroadcast(right${b}, ${l}u);
            let v = vec4<f16>(vec4(unpack2x16float(words.x), unpack2x16float(words.y)));
//#for a in DOWN
            {
                let pair = fma(left${a}.zw, v.zw, left${a}.xy * v.xy);
                let sum = acc[${a}u * QUADS + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u];
                acc[${a}u * QUADS + (${b}u * LANES + ${l}u) / 4u][${l}u % 4u] = fma(f32(pair.x) + f32(pair.y), power${a}, sum);
            }
//#end
        }
//#end
//#end
//#else
//#for c in COLS
        {
//#if STAGED
            let v = half_stage[${c}u * 4u + k % 16u / 4u];
//#else
            let v = load_${RIGHT}(${ROW}(tile.col, ${c}u) * ${INNER}, k, ${INNER});
//#end
//#for a in DOWN
            {
                let pair = fma(left${a}.zw, v.zw, left${a}.xy * v.xy);
                let sum = acc[${a}u * QUADS + ${c}u / 4u][${c}u % 4u];
                acc[${a}u * QUADS + ${c}u / 4u][${c}u % 4u] = fma(f32(pair.x) + f32(pair.y), power${a}, sum);
            }
//#end
        }
//#end
//#end
    }
    }

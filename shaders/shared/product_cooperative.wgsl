// acc += (rows of LEFT) · (rows of RIGHT, f16), both INNER long, as product_rows, by cooperative matrices: f16 products,
// added up in f32. The stages make whole matrices of ragged shapes; terms beyond INNER are zeros.
// An f16 ends at 65504, so each row is divided by the power of two that leaves its largest element in [2^14, 2^15), and
// its sums are multiplied by it again.
    {
//#for a in DOWN
    let left_at${a} = min(row${a}, rows - 1u) * ${INNER};
    var largest${a} = 0.0;
//#end
    for (var k = 0u; k < ${INNER}; k += 4u) {
//#if NORM
        let weight = load_gain(0u, k, ${INNER});
//#end
//#for a in DOWN
        {
            var left = load_${LEFT}(left_at${a}, k, ${INNER});
//#if NORM
            squares[${a}] += dot(left, left);
            left *= weight;
//#end
            let size = abs(left);
            largest${a} = max(largest${a}, max(max(size.x, size.y), max(size.z, size.w)));
        }
//#end
    }
//#for a in DOWN
    // The biased exponent: the power is 2^(exponent - 127 - 14).
    let exponent${a} = clamp(bitcast<u32>(largest${a}) >> 23u, 15u, 254u);
    let inverse${a} = bitcast<f32>((268u - exponent${a}) << 23u);
    let power${a} = bitcast<f32>((exponent${a} - 14u) << 23u);
//#end
//#for i in HEIGHT
//#for j in WIDTH
    var sum${i}_${j} = SumMatrix();
//#end
//#end
    for (var k = 0u; k < ${INNER}; k += SIZE) {
        workgroupBarrier();
        for (var q = 0u; q < SIZE; q += 4u) {
            let inside = k + q < ${INNER};
            let at = select(0u, k + q, inside);
//#if NORM
            let weight = load_gain(0u, at, ${INNER});
//#end
//#for a in DOWN
            {
                var left = load_${LEFT}(left_at${a}, at, ${INNER});
//#if NORM
                left *= weight;
//#end
                let part = vec4<f16>(select(vec4<f32>(), left * inverse${a}, inside));
                let to = (${a}u * LANES + lane) * SIZE + q;
                left_stage[to] = part.x;
                left_stage[to + 1u] = part.y;
                left_stage[to + 2u] = part.z;
                left_stage[to + 3u] = part.w;
            }
//#end
        }
        for (var i = lane; i < COLS * SIZE / 4u; i += LANES) {
            let q = i % (SIZE / 4u) * 4u;
            let inside = k + q < ${INNER};
            let part = load_${RIGHT}(${ROW}(tile.col, i / (SIZE / 4u)) * ${INNER}, select(0u, k + q, inside), ${INNER});
            right_stage[i * 4u] = select(0.0h, part.x, inside);
            right_stage[i * 4u + 1u] = select(0.0h, part.y, inside);
            right_stage[i * 4u + 2u] = select(0.0h, part.z, inside);
            right_stage[i * 4u + 3u] = select(0.0h, part.w, inside);
        }
        workgroupBarrier();
//#for j in WIDTH
        // A column's terms lie one after the other.
        let right${j} = coopLoad<RightMatrix>(&right_stage[${j}u * SIZE * SIZE], SIZE);
//#end
//#for i in HEIGHT
        {
            let left = coopLoadT<LeftMatrix>(&left_stage[${i}u * SIZE * SIZE], SIZE);
//#for j in WIDTH
            sum${i}_${j} = coopMultiplyAdd(left, right${j}, sum${i}_${j});
//#end
        }
//#end
    }
//#for i in HEIGHT
//#for j in WIDTH
    coopStoreT(sum${i}_${j}, &sums[${i}u * SIZE * COLS + ${j}u * SIZE], COLS);
//#end
//#end
    workgroupBarrier();
//#for a in DOWN
//#for q in QUADS
    {
        let at = (${a}u * LANES + lane) * COLS + ${q}u * 4u;
        acc[${a}u * QUADS + ${q}u] += vec4(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]) * power${a};
    }
//#end
//#end
    }

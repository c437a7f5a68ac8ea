// Where the rows begin that a lane reads in a product of rows: its own left ones, and the right ones that it shares.
//#for a in DOWN
    let left_at${a} = min(row${a}, rows - 1u) * ${INNER};
//#end
//#if SUBGROUP
//#for b in SPREAD
    let right_at${b} = ${ROW}(tile.col, ${b}u * LANES + lane) * ${INNER};
//#end
//#end
//#if STAGED
    // A stage has 16 terms: lane l loads four of them of column l / 4.
    let right_at = ${ROW}(tile.col, lane / 4u) * ${INNER};
    let last = select(0u, (${INNER} - 1u) / 4u * 4u, ${INNER} > 0u);
//#end

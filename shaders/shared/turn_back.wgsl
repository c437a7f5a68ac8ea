    // Turns the gradient of a turned head back: the rotation by minus the position's angles.
    for (var w = 0u; w < WIDTH / 2u; w++) {
        let cosine = table[${POSITION} * WIDTH + w];
        let sine = table[${POSITION} * WIDTH + WIDTH / 2u + w];
        let low = ${OF}[w];
        let high = ${OF}[w + WIDTH / 2u];
        ${OF}[w] = low * cosine + high * sine;
        ${OF}[w + WIDTH / 2u] = high * cosine - low * sine;
    }

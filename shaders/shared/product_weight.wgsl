// acc += (rows of LEFT) · (rows of RIGHT), where RIGHT was loaded by load_weight: in the arithmetic that is chosen for it.
//#if COOPERATIVE
//#include product_cooperative LEFT=${LEFT} RIGHT=${RIGHT} ROW=${ROW} INNER=${INNER}
//#else
//#if HALF
//#include product_half LEFT=${LEFT} RIGHT=${RIGHT} ROW=${ROW} INNER=${INNER}
//#else
//#include product_rows LEFT=${LEFT} RIGHT=${RIGHT} ROW=${ROW} INNER=${INNER} SCALE=1.0
//#end
//#end

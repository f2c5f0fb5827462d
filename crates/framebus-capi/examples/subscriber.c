/* Prints every detection of an instance: `./subscriber demo`.
 * cc -I crates/framebus-capi/include crates/framebus-capi/examples/subscriber.c \
 *    -L target/release -lframebus -Wl,-rpath,$PWD/target/release -o subscriber */
#include <framebus.h>
#include <stdio.h>

int main(int argc, char **argv) {
    framebus_client *client = NULL;
    framebus_results *results = NULL;
    const framebus_result *result = NULL;
    if (framebus_connect(argc > 1 ? argv[1] : "default", NULL, &client) == FRAMEBUS_OK &&
        framebus_results_open(client, &results) == FRAMEBUS_OK) {
        while (framebus_results_next(results, -1, &result) == FRAMEBUS_OK) {
            for (size_t i = 0; i < result->count; i++) {
                const framebus_detection *found = &result->detections[i];
                printf("%s %s %.2f [%.1f, %.1f, %.1f, %.1f]\n", result->camera, found->label,
                       found->score, found->bbox[0], found->bbox[1], found->bbox[2], found->bbox[3]);
            }
            framebus_result_free(result);
            fflush(stdout);
        }
    }
    fprintf(stderr, "%s\n", framebus_last_error());
    return 1;
}

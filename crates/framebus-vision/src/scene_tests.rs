use super::*;

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const LOOK_S: f32 = 0.2;

/// A textured scene with sky above, under a light, with the noise of a sensor.
struct Camera {
    random: u64,
    /// Amplitude of uniform noise, in steps either way.
    noise: i32,
    light: f32,
    /// Pixels over which a defocused lens smears; 1 is sharp.
    smear: usize,
}

impl Camera {
    fn new(noise: i32) -> Self {
        Self { random: 7, noise, light: 1.0, smear: 1 }
    }

    fn next(&mut self) -> i32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as i32
    }

    fn picture(&mut self) -> Vec<u8> {
        let mut luma = Vec::with_capacity(WIDTH * HEIGHT);
        for y in 0..HEIGHT {
            let shade = |x: usize| match y {
                0..200 => 150,
                _ => 60 + 50 * ((x / 12 + y / 40) % 3) as i32,
            };
            for x in 0..WIDTH {
                let smeared: i32 = (x..x + self.smear).map(shade).sum();
                let lit = (smeared / self.smear as i32) as f32 * self.light;
                let noise = self.next() % (2 * self.noise + 1) - self.noise;
                luma.push((16 + lit as i32 + noise).clamp(0, 255) as u8);
            }
        }
        luma
    }

    fn look(&mut self, scene: &mut Scene, elapsed_s: f32) -> Sight {
        scene.look(&self.picture(), WIDTH, elapsed_s).expect("a picture")
    }
}

/// A scene that has seen enough of the camera to judge.
fn learned(camera: &mut Camera) -> Scene {
    let mut scene = Scene::new(WIDTH, HEIGHT, 0.6);
    for _ in 0..8 {
        assert!(!camera.look(&mut scene, 1.0).blurred);
    }
    scene
}

#[test]
fn only_the_very_same_picture_is_the_same() {
    let mut camera = Camera::new(1);
    let mut scene = learned(&mut camera);
    let mut picture = camera.picture();
    assert!(scene.look(&picture, WIDTH, LOOK_S).expect("a picture").change > 0.0);
    assert_eq!(scene.look(&picture, WIDTH, LOOK_S).expect("a picture").change, 0.0);
    // Something of 32 pixels moves on.
    for row in &mut picture.chunks_exact_mut(WIDTH).take(432).skip(400) {
        row[600..632].fill(20);
    }
    assert!(scene.look(&picture, WIDTH, LOOK_S).expect("a picture").change > 20.0);
    for _ in 0..10 {
        assert!(camera.look(&mut scene, LOOK_S).change > 0.0, "noise never repeats");
    }
}

#[test]
fn a_picture_without_contrast_is_told_from_a_dark_one() {
    let mut scene = Scene::new(WIDTH, HEIGHT, 0.6);
    let mut cap = Camera { light: 0.0, ..Camera::new(4) };
    let sight = cap.look(&mut scene, LOOK_S);
    assert!(sight.contrast < 2.0 && sight.light < 20.0, "{sight:?}");
    let mut night = Camera { light: 0.15, ..Camera::new(4) };
    let sight = night.look(&mut scene, LOOK_S);
    assert!(sight.contrast > 4.0 && sight.light < 40.0, "{sight:?}");
    let white = vec![235; WIDTH * HEIGHT];
    let sight = scene.look(&white, WIDTH, LOOK_S).expect("a picture");
    assert!(sight.contrast < 0.1 && sight.light > 234.0, "{sight:?}");
}

#[test]
fn a_lens_out_of_focus_or_covered_is_seen_until_it_is_clear_again() {
    for noise in [0, 3, 8] {
        let mut camera = Camera::new(noise);
        let mut scene = learned(&mut camera);
        camera.smear = 30;
        for _ in 0..100 {
            assert!(camera.look(&mut scene, 1.0).blurred, "noise {noise}");
        }
        camera.smear = 1;
        assert!(!camera.look(&mut scene, 1.0).blurred, "noise {noise}");
        // A sheet of paper.
        let paper: Vec<u8> = (0..WIDTH * HEIGHT).map(|i| 120 + (i % WIDTH / 40) as u8).collect();
        assert!(scene.look(&paper, WIDTH, 1.0).expect("a picture").blurred, "noise {noise}");
    }
}

#[test]
fn light_that_changes_at_once_or_slowly_is_no_blur() {
    for noise in [0, 3] {
        let mut camera = Camera::new(noise);
        let mut scene = learned(&mut camera);
        for light in [0.5, 1.2, 0.3, 0.1, 0.0, 1.0] {
            camera.light = light;
            assert!(!camera.look(&mut scene, 1.0).blurred, "light {light}, noise {noise}");
        }
        // Dusk of an hour, in which a haze takes most of the detail.
        for minute in 0..60 {
            camera.light = 1.0 - minute as f32 / 70.0;
            camera.smear = 1 + minute / 4;
            for _ in 0..6 {
                let sight = camera.look(&mut scene, 10.0);
                assert!(!sight.blurred, "minute {minute}, noise {noise}: {sight:?}");
            }
        }
    }
}

#[test]
fn what_stands_in_front_of_a_part_is_no_blur() {
    let mut camera = Camera::new(3);
    let mut scene = learned(&mut camera);
    for left in (0..WIDTH - 500).step_by(60) {
        let mut picture = camera.picture();
        for row in picture.chunks_exact_mut(WIDTH) {
            row[left..left + 500].fill(90);
        }
        assert!(!scene.look(&picture, WIDTH, LOOK_S).expect("a picture").blurred, "{left}");
    }
}

#[test]
fn a_scene_that_changed_for_good_is_accepted_within_the_hour() {
    let mut camera = Camera::new(2);
    let mut scene = learned(&mut camera);
    camera.smear = 30;
    let picture = camera.picture();
    let accepted_s = (0..3600).step_by(5).find(|_| {
        let sight = scene.look(&picture, WIDTH, 5.0).expect("a picture");
        !sight.blurred
    });
    assert!(accepted_s.is_some_and(|s| s > 600), "{accepted_s:?}");
}

#[test]
fn the_green_of_missing_data_is_measured() {
    let mut chroma = vec![128; WIDTH * HEIGHT / 2];
    assert_eq!(missing(&chroma, WIDTH, WIDTH, HEIGHT), Some(0.0));
    // The lower quarter; a green of RGB (0, 255, 0) is none.
    chroma[WIDTH * 270..].fill(0);
    assert_eq!(missing(&chroma, WIDTH, WIDTH, HEIGHT), Some(0.25));
    for pair in chroma.as_chunks_mut::<2>().0 {
        *pair = [44, 21];
    }
    assert_eq!(missing(&chroma, WIDTH, WIDTH, HEIGHT), Some(0.0));
    assert_eq!(missing(&chroma[..1000], WIDTH, WIDTH, HEIGHT), None);
}

#[test]
fn pictures_that_do_not_fit_are_not_judged() {
    for (width, height) in [(31, 400), (400, 32), (1, 1), (0, 0)] {
        let mut small = Scene::new(width, height, 0.6);
        assert_eq!(small.look(&vec![0; width * height], width, LOOK_S), None);
    }
    let mut scene = Scene::new(WIDTH, HEIGHT, 0.6);
    assert_eq!(scene.look(&[0; 1000], WIDTH, LOOK_S), None);
    for (width, height) in [(3840, 2160), (640, 481), (1922, 1081), (33, 37)] {
        let mut scene = Scene::new(width, height, 0.6);
        assert!(scene.look(&vec![77; width * height], width, LOOK_S).is_some(), "{width}");
    }
}

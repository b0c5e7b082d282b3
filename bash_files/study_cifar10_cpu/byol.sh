# The study's Kaizen with BYOL: all 50,000 CIFAR-10 images at 16x16, five tasks of two classes, ten epochs each, 1 % replay.
# Measured with it: classifier final .263, continual .421 with seed 5. One run takes 15 to 25 minutes on one CPU core.
# Arms and seeds are set by study.py beside this file, and what came out of all is in docs/study.md; one run by itself:
# DATA_DIR=/data/cifar10 python job_launcher.py --script bash_files/study_cifar10_cpu/byol.sh --seeds 5
# Needs DATA_DIR with train/<class>/ and val/<class>/ folders; the probe is clean (--online_eval_batchnorm frozen).
python3 main_continual.py \
    --name study-byol \
    --dataset custom \
    --data_dir $DATA_DIR \
    --size 16 \
    --mean 0.4914 0.4822 0.4465 \
    --std 0.2470 0.2435 0.2616 \
    --split_strategy class \
    --num_tasks 5 \
    --encoder resnet9 \
    --encoder_width 0.25 \
    --method byol \
    --proj_hidden_dim 1024 \
    --output_dim 128 \
    --pred_hidden_dim 1024 \
    --base_tau_momentum 0.99 \
    --final_tau_momentum 1.0 \
    --optimizer sgd \
    --lr 0.3 \
    --classifier_lr 0.03 \
    --weight_decay 1e-5 \
    --scheduler warmup_cosine \
    --warmup_epochs 1 \
    --max_epochs 10 \
    --batch_size 256 \
    --min_scale 0.2 \
    --brightness 0.4 \
    --contrast 0.4 \
    --saturation 0.2 \
    --hue 0.1 \
    --gaussian_prob 0.0 \
    --classifier_layers 1000 \
    --distiller predictive \
    --feature_extractor_distill_proj_hidden_dim 512 \
    --distiller_classifier soft_label \
    --classifier_distill_lamb 4.0 \
    --classifier_distill_no_predictor True \
    --replay True \
    --replay_proportion 0.01 \
    --replay_batch_size 32 \
    --online_evaluation True \
    --online_eval_batchnorm frozen \
    --check_val_every_n_epoch 10

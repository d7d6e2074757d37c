"""normlab: what does the normalization layer do to a ResNet?"""

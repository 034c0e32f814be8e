from kd_runner.run import main

if __name__ == "__main__":
    main()
